# syntax=docker/dockerfile:1
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /pushhub ./cmd/pushhub

# Certificates for a JWKS over HTTPS and Redis over TLS come with the base.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /pushhub /pushhub
EXPOSE 5080
# No shell in here: the binary asks its own /health/live.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/pushhub", "check", "--live"]
ENTRYPOINT ["/pushhub"]
CMD ["serve"]
