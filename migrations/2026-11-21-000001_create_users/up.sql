CREATE TABLE users (
    id              UUID PRIMARY KEY,
    email           VARCHAR(254) NOT NULL,
    hashed_password VARCHAR(255) NOT NULL,
    full_name       VARCHAR(200),
    role            VARCHAR(16)  NOT NULL DEFAULT 'user',
    is_superuser    BOOLEAN      NOT NULL GENERATED ALWAYS AS (role = 'superuser') STORED,
    is_active       BOOLEAN      NOT NULL DEFAULT true,
    is_verified     BOOLEAN      NOT NULL DEFAULT false,
    created_at      TIMESTAMPTZ  NOT NULL DEFAULT now(),
    updated_at      TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT valid_role CHECK (role IN ('user', 'support', 'admin', 'superuser'))
);

-- Addresses are compared without regard to case: nobody gets a second account by shouting.
CREATE UNIQUE INDEX users_email ON users (lower(email));
