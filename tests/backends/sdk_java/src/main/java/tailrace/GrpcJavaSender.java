package tailrace;

import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.common.export.GrpcResponse;
import io.opentelemetry.sdk.common.export.GrpcSender;
import io.opentelemetry.sdk.common.export.GrpcSenderConfig;
import io.opentelemetry.sdk.common.export.GrpcSenderProvider;
import io.opentelemetry.sdk.common.export.GrpcStatusCode;
import io.opentelemetry.sdk.common.export.MessageWriter;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** The SDK's exporters over grpc-java and Netty: another HTTP/2 than that of OkHttp. */
final class GrpcJavaSender implements GrpcSender {
  /** A PEM file's content; null: plaintext. The SDK's configuration has it only as a trust manager. */
  static byte[] trusted;

  private static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            return stream.readAllBytes();
          } catch (IOException failed) {
            throw new UncheckedIOException(failed);
          }
        }
      };

  private final ManagedChannel channel;
  private final MethodDescriptor<byte[], byte[]> method;
  private final CallOptions options;
  private final long timeoutNanos;

  private GrpcJavaSender(GrpcSenderConfig config) throws IOException {
    var uri = config.getEndpoint();
    var builder = NettyChannelBuilder.forAddress(uri.getHost(), uri.getPort());
    if (trusted == null) {
      builder.usePlaintext();
    } else {
      builder.sslContext(GrpcSslContexts.forClient().trustManager(new ByteArrayInputStream(trusted)).build());
    }
    channel = builder.build();
    method =
        MethodDescriptor.newBuilder(BYTES, BYTES)
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(config.getFullMethodName())
            .build();
    var compressor = config.getCompressor();
    options = compressor == null ? CallOptions.DEFAULT : CallOptions.DEFAULT.withCompression(compressor.getEncoding());
    timeoutNanos = config.getTimeout().toNanos();
  }

  @Override
  public void send(MessageWriter message, Consumer<GrpcResponse> onResponse, Consumer<Throwable> onError) {
    var wire = new ByteArrayOutputStream(message.getContentLength());
    try {
      message.writeMessage(wire);
    } catch (IOException failed) {
      onError.accept(failed);
      return;
    }
    ClientCalls.asyncUnaryCall(
        channel.newCall(method, options.withDeadlineAfter(timeoutNanos, TimeUnit.NANOSECONDS)),
        wire.toByteArray(),
        new StreamObserver<>() {
          private byte[] answer = new byte[0];

          @Override
          public void onNext(byte[] value) {
            answer = value;
          }

          @Override
          public void onError(Throwable failed) {
            onResponse.accept(new Answer(Status.fromThrowable(failed), answer));
          }

          @Override
          public void onCompleted() {
            onResponse.accept(new Answer(Status.OK, answer));
          }
        });
  }

  @Override
  public CompletableResultCode shutdown() {
    channel.shutdown();
    return CompletableResultCode.ofSuccess();
  }

  private record Answer(Status status, byte[] message) implements GrpcResponse {
    @Override
    public GrpcStatusCode getStatusCode() {
      return GrpcStatusCode.fromValue(status.getCode().value());
    }

    @Override
    public String getStatusDescription() {
      return status.getDescription();
    }

    @Override
    public byte[] getResponseMessage() {
      return message;
    }
  }

  /** Found by name, see Emit. */
  public static final class Provider implements GrpcSenderProvider {
    @Override
    public GrpcSender createSender(GrpcSenderConfig config) {
      try {
        return new GrpcJavaSender(config);
      } catch (IOException failed) {
        throw new UncheckedIOException(failed);
      }
    }
  }
}
