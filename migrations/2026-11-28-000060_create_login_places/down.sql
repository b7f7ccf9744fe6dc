ALTER TABLE users DROP COLUMN warned_at;
DROP TABLE login_places;
