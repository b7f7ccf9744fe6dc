CREATE TABLE plans (
    id                VARCHAR(50)  PRIMARY KEY,
    name              VARCHAR(100) NOT NULL,
    plan_type         VARCHAR(10)  NOT NULL,
    price_minor       BIGINT       NOT NULL DEFAULT 0,
    currency          CHAR(3)      NOT NULL DEFAULT 'USD',
    features          TEXT[]       NOT NULL DEFAULT '{}',
    streaming_support BOOLEAN      NOT NULL DEFAULT false,
    max_devices       INTEGER      NOT NULL,
    max_connections   INTEGER      NOT NULL,
    tier              SMALLINT     NOT NULL DEFAULT 0,
    download_mbps     INTEGER,
    upload_mbps       INTEGER,
    quota_bytes       BIGINT,
    is_offered        BOOLEAN      NOT NULL DEFAULT true,
    created_at        TIMESTAMPTZ  NOT NULL DEFAULT now(),
    updated_at        TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT valid_plan_type CHECK (plan_type IN ('monthly', 'yearly', 'free')),
    CONSTRAINT valid_limits CHECK (
        price_minor >= 0 AND max_devices > 0 AND max_connections > 0 AND tier >= 0
        AND download_mbps > 0 AND upload_mbps > 0 AND quota_bytes > 0
    ),
    -- Lets a subscription repeat the plan's type and be held to it.
    CONSTRAINT plans_id_plan_type UNIQUE (id, plan_type)
);

COMMENT ON COLUMN plans.tier IS 'Servers up to this tier may be used.';
COMMENT ON COLUMN plans.quota_bytes IS 'Bytes a month in both directions together; null for no limit.';

INSERT INTO plans (id, name, plan_type, price_minor, features, streaming_support, max_devices, max_connections, tier, download_mbps, upload_mbps, quota_bytes) VALUES
    ('free', 'Free', 'free', 0, '{1_device}', false, 1, 1, 0, 10, 10, 10737418240),
    ('premium_monthly', 'Premium Monthly', 'monthly', 999, '{unlimited_bandwidth,all_locations,5_devices}', true, 5, 5, 1, NULL, NULL, NULL),
    ('premium_yearly', 'Premium Yearly', 'yearly', 9999, '{unlimited_bandwidth,all_locations,5_devices}', true, 5, 5, 1, NULL, NULL, NULL);
