"""Pages and tables for people: the report of runs, the data check, the view of running runs."""
