// Fills in page templates: the healthy part of the service, which allocates a lot and gives all of
// it back.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "http.h"

namespace storefront {

// Replaces every {{name}} of `page` by what `lookup` says.
std::string FillIn(std::string_view page,
                   const std::function<std::string(std::string_view name)>& lookup);

struct Product {
  std::string name;
  int cents;
};

// The catalog as HTML, cheapest product first.
std::string RenderCatalog(std::vector<Product> products, const Fields& visitor);

}  // namespace storefront
