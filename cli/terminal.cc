// See terminal.h.
#include "cli/terminal.h"

namespace troth {

Printable::int_type Printable::overflow(int_type c) {
  if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
  auto byte = static_cast<unsigned char>(traits_type::to_char_type(c));
  if ((byte < 0x20 && byte != '\n') || byte == 0x7f) byte = '?';
  if (after_c2_ && byte >= 0x80 && byte < 0xa0) byte = 0xbf;
  after_c2_ = byte == 0xc2;
  return under_->sputc(static_cast<char>(byte));
}

}  // namespace troth
