ALTER TABLE users ADD COLUMN deleted_at TIMESTAMPTZ;

COMMENT ON COLUMN users.deleted_at IS 'Nobody any more: the row waits until its last connection is off its node and its last access token has expired.';

CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX users_created ON users (created_at, id);
