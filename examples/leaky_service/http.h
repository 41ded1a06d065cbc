// HTTP/1.1, as much of it as this service and its load generator speak: a start line, headers, and
// a body whose size Content-Length gives. Connections are kept alive.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "socket.h"

namespace storefront {

using Fields = std::map<std::string, std::string, std::less<>>;

struct Message {
  std::vector<std::string> start_line;  // "GET" "/catalog" "HTTP/1.1", or "HTTP/1.1" "200" "OK"
  Fields headers;                       // names in lower case
  std::string body;
};

// "200 OK" with the body.
std::string FormatResponse(std::string_view status, std::string_view body);
std::string FormatRequest(std::string_view method, std::string_view path, std::string_view body);

// "a=1&b=two" as fields.
Fields ParseForm(std::string_view form);

// Reads messages off a connection, one after the other. One reader per connection.
class MessageReader {
 public:
  explicit MessageReader(const Socket& connection) : connection_(connection) {}

  // Nothing at the end of the connection, or when what came is not HTTP.
  std::optional<Message> Next();

 private:
  bool ReadMore();

  const Socket& connection_;
  std::string pending_;  // received, not yet handed out
};

}  // namespace storefront
