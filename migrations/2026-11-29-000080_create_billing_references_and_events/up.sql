-- Who somebody is at Stripe.
CREATE TABLE billing_customers (
    user_id          UUID        PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    id               UUID        NOT NULL UNIQUE,
    stripe_hash      BYTEA       NOT NULL UNIQUE,
    sealed_stripe_id BYTEA       NOT NULL,
    readings         BIGINT      NOT NULL DEFAULT 0,
    created_at       TIMESTAMPTZ NOT NULL DEFAULT now()
);

COMMENT ON COLUMN billing_customers.id IS 'What the sealed id is bound to.';
COMMENT ON COLUMN billing_customers.stripe_hash IS 'A keyed hash of the id, to be found by; it changes with the key.';
COMMENT ON COLUMN billing_customers.readings IS 'How many readings of Stripe were written: one that began before the latest is older, and is read again.';

-- What Stripe's webhook told, each once. A worker acts on it by reading anew what it is about.
CREATE TABLE stripe_events (
    id             UUID         PRIMARY KEY,
    event_hash     BYTEA        NOT NULL UNIQUE,
    kind           VARCHAR(100) NOT NULL,
    sealed_payload BYTEA        NOT NULL,
    status         VARCHAR(10)  NOT NULL DEFAULT 'waiting',
    attempts       INTEGER      NOT NULL DEFAULT 0,
    last_error     TEXT,
    received_at    TIMESTAMPTZ  NOT NULL DEFAULT now(),
    done_at        TIMESTAMPTZ,
    CONSTRAINT valid_event_status CHECK (status IN ('waiting', 'done', 'parked')),
    CONSTRAINT done_at_some_time CHECK ((done_at IS NOT NULL) = (status = 'done'))
);

COMMENT ON COLUMN stripe_events.event_hash IS 'A keyed hash of the event''s id at Stripe.';
COMMENT ON COLUMN stripe_events.status IS 'parked: it failed for good, and waits for an operator.';

CREATE INDEX stripe_events_received ON stripe_events (received_at, id);
CREATE INDEX stripe_events_open ON stripe_events (status, received_at, id) WHERE status <> 'done';
