-- Where an account was logged in: strangers who guess its password from elsewhere cannot shut it out of there.
CREATE TABLE login_places (
    user_id UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    place   BYTEA       NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, place),
    CONSTRAINT is_place CHECK (octet_length(place) = 16)
);

COMMENT ON COLUMN login_places.place IS 'A keyed hash of account and address: it tells neither the address nor that two accounts share one.';

CREATE INDEX login_places_seen ON login_places (seen_at);

ALTER TABLE users ADD COLUMN warned_at TIMESTAMPTZ;

COMMENT ON COLUMN users.warned_at IS 'When the owner was last told that somebody guesses the password.';
