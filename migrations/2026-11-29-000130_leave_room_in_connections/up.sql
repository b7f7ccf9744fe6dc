-- A live connection's bytes are written about once a minute. Where its page has room the row stays where it is, and none
-- of the table's indexes is touched.
ALTER TABLE connections SET (fillfactor = 70);
