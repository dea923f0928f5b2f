"""What OTLP and OpenTelemetry's conventions fix, beyond the bytes: names, enumerations, consistent sampling.

``names``                  gRPC methods and HTTP paths of the three services
``consistent_sampling``    thresholds and randomness in trace states
``exponential_histogram``  exponential histograms filled by the batch
``protobuf``               protobuf fields written in Python, for what is encoded once and cached
``responses``              what a server's response to an export request says
"""
