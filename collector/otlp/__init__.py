"""What OTLP and the OpenTelemetry specification fix beyond the bytes: names, enumerations, consistent sampling.

``names``                the gRPC methods and HTTP paths of the three services
``semantics``            enumerations: span kinds, status codes, severities, temporalities, flags
``consistent_sampling``  thresholds and randomness in trace states
``adjusted_count``       how many spans a sampled span stands for
``exponential_histogram``  exponential histograms filled by the batch, one per slot of a table
``responses``            what a server's response to an export request says
"""
