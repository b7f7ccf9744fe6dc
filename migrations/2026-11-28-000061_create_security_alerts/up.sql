-- Attacks as operators see them: a row each, from the first sign until nothing was seen for a while.
CREATE TABLE security_alerts (
    id              UUID        PRIMARY KEY,
    kind            VARCHAR(20) NOT NULL,
    user_id         UUID,
    started_at      TIMESTAMPTZ NOT NULL,
    last_seen_at    TIMESTAMPTZ NOT NULL,
    ended_at        TIMESTAMPTZ,
    count           BIGINT      NOT NULL,
    notified_at     TIMESTAMPTZ,
    acknowledged_at TIMESTAMPTZ,
    acknowledged_by VARCHAR(100),
    CONSTRAINT valid_alert_kind CHECK (kind IN ('flood', 'guessing', 'account_guessing', 'refusals')),
    CONSTRAINT acknowledged_by_somebody CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);

COMMENT ON TABLE security_alerts IS 'No client address is kept: the bans have them.';
COMMENT ON COLUMN security_alerts.user_id IS 'Whose password is guessed. No foreign key: the row outlives them.';
COMMENT ON COLUMN security_alerts.count IS 'How many bans, tries or refusals it was.';
COMMENT ON COLUMN security_alerts.notified_at IS 'When the operators were sent a mail about it.';

-- What goes on is one row, however many replicas see it.
CREATE UNIQUE INDEX security_alerts_going_on
    ON security_alerts (kind, coalesce(user_id, '00000000-0000-0000-0000-000000000000')) WHERE ended_at IS NULL;
CREATE INDEX security_alerts_notified ON security_alerts (kind, notified_at) WHERE notified_at IS NOT NULL;
CREATE INDEX security_alerts_started ON security_alerts (started_at, id);
CREATE INDEX security_alerts_ended ON security_alerts (ended_at);
