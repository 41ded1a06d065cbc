#include "storefront.h"

#include <stdexcept>

namespace storefront {

Storefront::Storefront() {
  for (int i = 0; i < 40; ++i) {
    products_.push_back({"article-number-" + std::to_string(i), 99 + (i * 7919) % 5000});
  }
}

void Storefront::Attach(HttpServer* server) {
  server->Route("POST", "/login", [this](const Message& request) { return OnLogin(request); });
  server->Route("POST", "/catalog", [this](const Message& request) { return OnCatalog(request); });
}

std::string Storefront::OnLogin(const Message& request) {
  const Fields form = ParseForm(request.body);
  return sessions_.Insert(form.at("user"), form.at("basket"));
}

std::string Storefront::OnCatalog(const Message& request) {
  const Fields form = ParseForm(request.body);
  Fields visitor = {{"title", "Everything we sell"}};
  if (!sessions_.Visit(form.at("token"), [&](const Session& s) { visitor["user"] = s.user; })) {
    throw std::runtime_error("please log in first");
  }
  return RenderCatalog(products_, visitor);
}

}  // namespace storefront
