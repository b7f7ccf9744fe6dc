ALTER TABLE plans
    ADD COLUMN seal_row     UUID    NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN sealed_price BYTEA,
    ADD COLUMN trial_days   INTEGER NOT NULL DEFAULT 0,
    ADD CONSTRAINT plans_seal_row UNIQUE (seal_row),
    ADD CONSTRAINT valid_trial CHECK (trial_days BETWEEN 0 AND 730),
    -- It is what everybody has who pays for nothing.
    ADD CONSTRAINT free_stays CHECK (
        id <> 'free' OR (plan_type = 'free' AND price_minor = 0 AND trial_days = 0 AND sealed_price IS NULL AND is_offered)
    );

COMMENT ON COLUMN plans.seal_row IS 'What sealed_price is bound to.';
COMMENT ON COLUMN plans.sealed_price IS 'The price''s id at Stripe, encrypted; null where the configuration names it, or nobody can buy the plan.';
COMMENT ON COLUMN plans.trial_days IS 'Days before the first payment.';

ALTER TABLE subscriptions
    ADD COLUMN stripe_hash          BYTEA,
    ADD COLUMN sealed_stripe_id     BYTEA,
    ADD COLUMN trial_end            TIMESTAMPTZ,
    ADD COLUMN cancel_at_period_end BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN access_until         TIMESTAMPTZ,
    ADD COLUMN throttle_mbps        INTEGER,
    ADD COLUMN lapsed_at            TIMESTAMPTZ,
    ADD CONSTRAINT subscriptions_stripe_hash UNIQUE (stripe_hash),
    ADD CONSTRAINT reference_is_whole CHECK ((stripe_hash IS NULL) = (sealed_stripe_id IS NULL)),
    ADD CONSTRAINT valid_throttle CHECK (throttle_mbps > 0);

COMMENT ON COLUMN subscriptions.stripe_hash IS 'Finds the row by Stripe''s id, which is kept nowhere in plain; null where the subscription is not billed.';
COMMENT ON COLUMN subscriptions.end_date IS 'The end of the period that runs; null where nothing expires, as on the free plan.';
COMMENT ON COLUMN subscriptions.access_until IS 'When the plan''s rights end if nothing else happens; null for never.';
COMMENT ON COLUMN subscriptions.throttle_mbps IS 'A rate that holds beside the plan''s, while a payment is missing.';
COMMENT ON COLUMN subscriptions.lapsed_at IS 'When the end of its rights was noticed, and told; null while there are some.';

UPDATE subscriptions SET access_until = end_date;

-- What time ends.
CREATE INDEX subscriptions_access ON subscriptions (access_until) WHERE status <> 'canceled' AND lapsed_at IS NULL;

-- The one place where a subscription becomes rights; `billing::subscription` says the same of one row.
CREATE VIEW entitlements AS
SELECT u.id AS user_id,
       u.is_active,
       p.id AS plan_id,
       p.tier,
       p.max_devices,
       p.max_connections,
       least(p.download_mbps, s.throttle_mbps) AS download_mbps,
       least(p.upload_mbps, s.throttle_mbps) AS upload_mbps,
       p.quota_bytes,
       p.streaming_support AS streaming,
       s.access_until AS ends_at,
       (SELECT tier FROM plans WHERE id = 'free') AS lasting_tier
  FROM users u
  LEFT JOIN subscriptions s ON s.user_id = u.id AND s.status <> 'canceled'
        AND (s.access_until IS NULL OR s.access_until > now())
  JOIN plans p ON p.id = coalesce(s.plan_id, 'free');

COMMENT ON VIEW entitlements IS 'What each person may use now: the running subscription''s plan, or the free one.';
COMMENT ON COLUMN entitlements.ends_at IS 'When the free plan''s rights take their place; null for never.';
COMMENT ON COLUMN entitlements.lasting_tier IS 'The tier that is left then.';
