DROP TABLE enrolment_tokens;
DROP TABLE nodes;
DROP TABLE vpn_servers;
