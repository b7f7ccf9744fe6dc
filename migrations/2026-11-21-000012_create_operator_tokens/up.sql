CREATE TABLE operator_tokens (
    id         UUID         PRIMARY KEY,
    name       VARCHAR(100) NOT NULL,
    rights     TEXT[]       NOT NULL,
    expires_at TIMESTAMPTZ  NOT NULL,
    revoked_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ  NOT NULL DEFAULT now()
);

COMMENT ON TABLE operator_tokens IS 'What was minted, so that it can be listed and revoked. The token itself is not kept.';
