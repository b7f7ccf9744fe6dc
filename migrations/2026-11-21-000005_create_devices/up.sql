CREATE TABLE devices (
    id                UUID         PRIMARY KEY,
    user_id           UUID         NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name              VARCHAR(100) NOT NULL,
    public_key        VARCHAR(44)  NOT NULL,
    last_connected_at TIMESTAMPTZ,
    created_at        TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT devices_user_key UNIQUE (user_id, public_key)
);
