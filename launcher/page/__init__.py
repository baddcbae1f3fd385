"""One HTML page that opens without a network: its template, style and plots."""
