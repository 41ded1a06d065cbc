// What the service does: people log in and look at the catalog.
#pragma once

#include <string>
#include <vector>

#include "http.h"
#include "http_server.h"
#include "page_renderer.h"
#include "session_cache.h"

namespace storefront {

class Storefront {
 public:
  Storefront();

  // Adds the routes; the server must not outlive this object.
  void Attach(HttpServer* server);

  size_t sessions() const { return sessions_.size(); }

 private:
  std::string OnLogin(const Message& request);
  std::string OnCatalog(const Message& request);

  std::vector<Product> products_;
  SessionCache sessions_;
};

}  // namespace storefront
