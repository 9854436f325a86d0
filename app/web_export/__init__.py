"""Web exports: a folder or a single page that shows a fitted person, without a server of ours."""
