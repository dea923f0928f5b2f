module tailrace.test/backends/otlpload

go 1.26.8

require (
	golang.org/x/net v0.55.0
	google.golang.org/protobuf v1.36.11
)

require golang.org/x/text v0.37.0 // indirect
