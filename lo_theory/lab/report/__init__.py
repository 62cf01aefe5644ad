"""One self-contained HTML page of a run: tables, figures, configuration, versions, command. Needs no network."""
