"""The verbs of a lab, a class per job. Each is documented here and does its work on the floors below."""
