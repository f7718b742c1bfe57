"""The report: one offline HTML page and its Markdown twin, built from what the other stages wrote."""
