// Stands in for a folder that has only headers.
