"""``iagan report``: the results of runs as one HTML page that needs nothing but a browser.

``collect`` reads what runs left on disk, ``render`` puts it into the template, ``command`` is the command line. Needs
no generator and no operator: whatever the page shows lies in the folders.
"""
