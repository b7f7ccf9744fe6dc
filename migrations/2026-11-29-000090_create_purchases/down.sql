ALTER TABLE billing_customers DROP COLUMN whole_since;

DROP TABLE purchases;
