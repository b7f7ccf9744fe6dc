-- Nothing: whoever added the columns first takes them away, the table's own migration at the latest.
SELECT 1;
