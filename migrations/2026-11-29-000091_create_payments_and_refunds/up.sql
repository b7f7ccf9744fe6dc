-- What people paid or are to pay: Stripe's invoices, as they were read last.
CREATE TABLE payments (
    id               UUID        PRIMARY KEY,
    user_id          UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    subscription_id  UUID        REFERENCES subscriptions (id) ON DELETE SET NULL,
    plan_id          VARCHAR(50) REFERENCES plans (id),
    minor            BIGINT      NOT NULL,
    tax              BIGINT      NOT NULL DEFAULT 0,
    currency         CHAR(3)     NOT NULL,
    refunded         BIGINT      NOT NULL DEFAULT 0,
    status           VARCHAR(10) NOT NULL,
    stripe_hash      BYTEA       NOT NULL UNIQUE,
    sealed_stripe_id BYTEA       NOT NULL,
    intent_hash      BYTEA,
    sealed_intent_id BYTEA,
    period_start     TIMESTAMPTZ,
    period_end       TIMESTAMPTZ,
    created_at       TIMESTAMPTZ NOT NULL,
    paid_at          TIMESTAMPTZ,
    CONSTRAINT valid_payment_status CHECK (status IN ('open', 'succeeded', 'failed', 'void')),
    CONSTRAINT paid_at_some_time CHECK ((paid_at IS NOT NULL) = (status = 'succeeded')),
    CONSTRAINT valid_amounts CHECK (minor >= 0 AND tax >= 0 AND refunded >= 0),
    CONSTRAINT intent_is_whole CHECK ((intent_hash IS NULL) = (sealed_intent_id IS NULL)),
    CONSTRAINT period_is_whole CHECK ((period_start IS NULL) = (period_end IS NULL))
);

COMMENT ON COLUMN payments.minor IS 'In the currency''s smallest unit, as tax and refunded are: what was paid, or is due.';
COMMENT ON COLUMN payments.tax IS 'Contained in minor.';
COMMENT ON COLUMN payments.refunded IS 'What went back or is on its way back.';
COMMENT ON COLUMN payments.stripe_hash IS 'A keyed hash of the invoice''s id, to be found by; it changes with the key.';
COMMENT ON COLUMN payments.intent_hash IS 'The same of the id of what paid it.';
COMMENT ON COLUMN payments.period_start IS 'The period that is paid for.';

CREATE INDEX payments_user ON payments (user_id, created_at, id);
CREATE INDEX payments_subscription ON payments (subscription_id);
CREATE INDEX payments_intent ON payments (intent_hash);

-- Money that goes back. A row is committed before Stripe is called, and its id makes the call one.
CREATE TABLE refunds (
    id               UUID         PRIMARY KEY,
    payment_id       UUID         NOT NULL REFERENCES payments (id) ON DELETE CASCADE,
    minor            BIGINT       NOT NULL,
    currency         CHAR(3)      NOT NULL,
    reason           VARCHAR(500),
    requested_by     UUID,
    request_key      VARCHAR(255),
    status           VARCHAR(10)  NOT NULL DEFAULT 'requested',
    stripe_hash      BYTEA        UNIQUE,
    sealed_stripe_id BYTEA,
    created_at       TIMESTAMPTZ  NOT NULL DEFAULT now(),
    updated_at       TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT valid_refund_status CHECK (status IN ('requested', 'pending', 'succeeded', 'failed')),
    CONSTRAINT refunds_something CHECK (minor > 0),
    CONSTRAINT refund_reference_is_whole CHECK ((stripe_hash IS NULL) = (sealed_stripe_id IS NULL))
);

COMMENT ON COLUMN refunds.requested_by IS 'Null where it was an operator''s token, or somebody at Stripe.';
COMMENT ON COLUMN refunds.request_key IS 'The Idempotency-Key of the request: the same one again is this refund again.';
COMMENT ON COLUMN refunds.status IS 'requested: Stripe was not told, or did not answer yet.';

CREATE INDEX refunds_payment ON refunds (payment_id, created_at, id);
CREATE UNIQUE INDEX refunds_request ON refunds (payment_id, request_key);
CREATE INDEX refunds_unfinished ON refunds (created_at) WHERE status = 'requested';

ALTER TABLE billing_customers ADD COLUMN payment_readings BIGINT NOT NULL DEFAULT 0;

COMMENT ON COLUMN billing_customers.payment_readings IS 'The same of what was paid.';

ALTER TABLE security_alerts
    DROP CONSTRAINT valid_alert_kind,
    ADD CONSTRAINT valid_alert_kind CHECK (
        kind IN ('flood', 'guessing', 'account_guessing', 'refusals', 'bad_webhooks', 'disputes')
    );
