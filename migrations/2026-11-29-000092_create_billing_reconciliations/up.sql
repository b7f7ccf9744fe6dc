-- Comparisons of what we keep with what Stripe has.
CREATE TABLE billing_reconciliations (
    id          UUID        PRIMARY KEY,
    started_at  TIMESTAMPTZ NOT NULL,
    ended_at    TIMESTAMPTZ NOT NULL,
    is_dry_run  BOOLEAN     NOT NULL,
    is_complete BOOLEAN     NOT NULL,
    report      JSONB       NOT NULL,
    CONSTRAINT ends_after_start CHECK (ended_at >= started_at)
);

COMMENT ON COLUMN billing_reconciliations.is_complete IS 'Stripe''s lists were read to their ends.';

CREATE INDEX billing_reconciliations_started ON billing_reconciliations (started_at);
