"""The server: HTTP API, studio page, and the jobs behind them. Needs the extra `serve`."""
