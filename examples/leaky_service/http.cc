#include "http.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace storefront {
namespace {

constexpr size_t kMaximumMessage = 8 << 20;

// Calls visit(part) for every part of `text` between separators.
template <typename Visitor>
void ForEachPart(std::string_view text, std::string_view separator, Visitor&& visit) {
  while (!text.empty()) {
    const size_t end = text.find(separator);
    visit(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + separator.size());
  }
}

std::pair<std::string, std::string> SplitField(std::string_view field, char separator) {
  const size_t middle = std::min(field.find(separator), field.size());
  std::string_view value = field.substr(std::min(middle + 1, field.size()));
  while (value.starts_with(' ')) value.remove_prefix(1);
  return {std::string(field.substr(0, middle)), std::string(value)};
}

Message ParseHead(std::string_view head) {
  Message message;
  const size_t line_end = std::min(head.find("\r\n"), head.size());
  ForEachPart(head.substr(0, line_end), " ",
              [&](std::string_view word) { message.start_line.emplace_back(word); });
  ForEachPart(head.substr(line_end), "\r\n", [&](std::string_view line) {
    if (line.empty()) return;
    auto [name, value] = SplitField(line, ':');
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    message.headers.insert_or_assign(std::move(name), std::move(value));
  });
  return message;
}

size_t ContentLength(const Fields& headers) {
  const auto header = headers.find("content-length");
  size_t length = 0;
  if (header != headers.end()) {
    const std::string& digits = header->second;
    std::from_chars(digits.data(), digits.data() + digits.size(), length);
  }
  return length;
}

}  // namespace

std::string FormatResponse(std::string_view status, std::string_view body) {
  std::string text = "HTTP/1.1 ";
  text.append(status).append("\r\nContent-Length: ").append(std::to_string(body.size()));
  text.append("\r\nContent-Type: text/html; charset=utf-8\r\n\r\n").append(body);
  return text;
}

std::string FormatRequest(std::string_view method, std::string_view path, std::string_view body) {
  std::string text(method);
  text.append(" ").append(path).append(" HTTP/1.1\r\nHost: localhost\r\nContent-Length: ");
  text.append(std::to_string(body.size())).append("\r\n\r\n").append(body);
  return text;
}

Fields ParseForm(std::string_view form) {
  Fields fields;
  ForEachPart(form, "&", [&](std::string_view field) { fields.insert(SplitField(field, '=')); });
  return fields;
}

std::optional<Message> MessageReader::Next() {
  size_t head_size;
  while ((head_size = pending_.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore()) return std::nullopt;
  }
  Message message = ParseHead(std::string_view(pending_).substr(0, head_size));
  if (message.start_line.size() < 3) return std::nullopt;

  const size_t body_size = ContentLength(message.headers);
  const size_t body_start = head_size + 4;
  if (body_size > kMaximumMessage) return std::nullopt;
  while (pending_.size() - body_start < body_size) {
    if (!ReadMore()) return std::nullopt;
  }
  message.body = pending_.substr(body_start, body_size);
  pending_.erase(0, body_start + body_size);
  return message;
}

bool MessageReader::ReadMore() {
  constexpr size_t kChunk = 16 << 10;
  const size_t before = pending_.size();
  if (before > kMaximumMessage) return false;
  pending_.resize(before + kChunk);
  const size_t received = connection_.Receive(pending_.data() + before, kChunk);
  pending_.resize(before + received);
  return received > 0;
}

}  // namespace storefront
