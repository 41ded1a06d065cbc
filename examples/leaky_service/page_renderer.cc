#include "page_renderer.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace storefront {
namespace {

constexpr std::string_view kPage =
    "<html><title>{{title}}</title><h1>Hello, {{user}}</h1><ul>{{rows}}</ul></html>";
constexpr std::string_view kRow = "<li><a href='/product/{{name}}'>{{name}}</a>: {{price}}</li>";

std::string FormatPrice(int cents) {
  char text[32];
  std::snprintf(text, sizeof(text), "%d.%02d", cents / 100, cents % 100);
  return text;
}

template <typename Key>
auto SortedBy(std::vector<Product> products, Key key) {
  std::sort(products.begin(), products.end(),
            [&](const Product& a, const Product& b) { return key(a) < key(b); });
  return products;
}

}  // namespace

std::string FillIn(std::string_view page,
                   const std::function<std::string(std::string_view name)>& lookup) {
  std::string text;
  for (;;) {
    const size_t open = page.find("{{");
    const size_t close = page.find("}}", open);
    text.append(page.substr(0, open));
    if (close == std::string_view::npos) return text;
    text.append(lookup(page.substr(open + 2, close - open - 2)));
    page.remove_prefix(close + 2);
  }
}

std::string RenderCatalog(std::vector<Product> products, const Fields& visitor) {
  const auto sorted = SortedBy(std::move(products), [](const Product& p) { return p.cents; });
  const std::string rows = std::accumulate(
      sorted.begin(), sorted.end(), std::string(), [](std::string all, const Product& product) {
        return std::move(all) + FillIn(kRow, [&](std::string_view name) {
                 return name == "price" ? FormatPrice(product.cents) : product.name;
               });
      });
  return FillIn(kPage, [&](std::string_view name) -> std::string {
    if (name == "rows") return rows;
    const auto field = visitor.find(name);
    return field == visitor.end() ? "the catalog" : field->second;
  });
}

}  // namespace storefront
