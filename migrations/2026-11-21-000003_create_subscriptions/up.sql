CREATE TABLE subscriptions (
    id         UUID        PRIMARY KEY,
    user_id    UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    plan_id    VARCHAR(50) NOT NULL,
    plan_type  VARCHAR(10) NOT NULL,
    status     VARCHAR(10) NOT NULL DEFAULT 'active',
    start_date TIMESTAMPTZ NOT NULL DEFAULT now(),
    end_date   TIMESTAMPTZ,
    auto_renew BOOLEAN     NOT NULL DEFAULT false,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT valid_subscription_status CHECK (status IN ('active', 'past_due', 'canceled')),
    CONSTRAINT valid_subscription_period CHECK (end_date > start_date),
    CONSTRAINT subscriptions_plan FOREIGN KEY (plan_id, plan_type) REFERENCES plans (id, plan_type)
);

COMMENT ON COLUMN subscriptions.end_date IS 'Null where nothing expires, as on the free plan.';

-- One running subscription a person; ended ones stay as history.
CREATE UNIQUE INDEX subscriptions_running ON subscriptions (user_id) WHERE status <> 'canceled';
CREATE INDEX subscriptions_user ON subscriptions (user_id, created_at);
