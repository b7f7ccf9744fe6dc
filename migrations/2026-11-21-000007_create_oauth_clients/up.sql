CREATE TABLE oauth_clients (
    id            VARCHAR(100) PRIMARY KEY,
    name          VARCHAR(100) NOT NULL,
    redirect_uris TEXT[]       NOT NULL,
    created_at    TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT has_redirect_uri CHECK (cardinality(redirect_uris) > 0)
);

COMMENT ON TABLE oauth_clients IS 'Apps that may ask people for access. All are public clients: none has a secret.';
