"""Vector arithmetic: checks, similarities and the exact engine. Nothing here knows a database."""
