"""What component authors share: queue and retry, clients and servers, TLS, compression."""
