"""What comes out: metrics, sheets, tables, the folder of a run, and the page that reports it."""
