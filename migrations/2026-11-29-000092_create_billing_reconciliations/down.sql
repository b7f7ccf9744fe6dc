DROP TABLE billing_reconciliations;
