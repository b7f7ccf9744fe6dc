-- What somebody is about to pay for. The row is there before Stripe is asked: its id makes that asking again has
-- the same answer.
CREATE TABLE purchases (
    id           UUID        PRIMARY KEY,
    user_id      UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    plan_id      VARCHAR(50) NOT NULL REFERENCES plans (id),
    kind         VARCHAR(12) NOT NULL,
    status       VARCHAR(8)  NOT NULL DEFAULT 'open',
    sealed_order BYTEA       NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT valid_purchase_kind CHECK (kind IN ('checkout', 'subscription', 'change')),
    CONSTRAINT valid_purchase_status CHECK (status IN ('open', 'done', 'given_up'))
);

COMMENT ON COLUMN purchases.status IS 'done: Stripe has it and so has the subscription''s row; given_up: nobody can pay it any more.';
COMMENT ON COLUMN purchases.sealed_order IS 'What Stripe is asked for, word for word, and the id of what it made of it.';

-- Nobody buys two things at a time.
CREATE UNIQUE INDEX purchases_open ON purchases (user_id) WHERE status = 'open';
CREATE INDEX purchases_user ON purchases (user_id, created_at);
CREATE INDEX purchases_old ON purchases (created_at) WHERE status = 'open';

-- Whoever was overtaken by a whole reading that began after theirs did knows as much as they would have read.
ALTER TABLE billing_customers ADD COLUMN whole_since BIGINT NOT NULL DEFAULT 0;

COMMENT ON COLUMN billing_customers.whole_since IS 'How many readings were written when the last one that was written of everything began.';
