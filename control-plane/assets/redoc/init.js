Redoc.init(
  "/api/v1/openapi.json",
  { sanitize: true, hideDownloadButtons: false, nativeScrollbars: true },
  document.getElementById("redoc"),
);
