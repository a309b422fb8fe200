# Datagrams: their CUnit suite joins the others in `make test`.

SUITES += datagrams
