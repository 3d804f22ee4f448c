"""How to run and watch the service: containers, Prometheus, Grafana, Kubernetes."""
