DROP INDEX users_deleted;
DROP INDEX users_created;
ALTER TABLE users DROP COLUMN deleted_at;
