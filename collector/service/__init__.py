"""The running service: graph, admission, ledger, own telemetry, life cycle. It imports no component; those come through entry points."""
