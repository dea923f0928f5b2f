"""Example components for Tailrace, as a third-party distribution would ship them.

``redact_prompts``  a processor: replaces prompts and completions in spans, span events and log records
``jsonl_tcp``       an exporter: sends OTLP/JSON lines over TCP
``heartbeat``       a receiver: emits a metric that shows the pipeline is alive
"""
