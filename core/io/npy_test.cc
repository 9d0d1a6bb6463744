#include "core/io/npy.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/matrix/dtype.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::string_literals::operator""s;

absl::StatusOr<NpyHeader> ParseFirst(size_t size, const std::vector<uint8_t>& file) {
  return ParseNpyHeader(std::span(file).first(size), std::nullopt);
}

// A file of one version whose header is `dict`, with no data.
std::vector<uint8_t> File(std::string_view dict, int version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) {
    bytes += static_cast<char>(dict.size() >> (8 * i) & 0xFF);
  }
  bytes += dict;
  return {bytes.begin(), bytes.end()};
}

absl::StatusOr<NpyHeader> Parse(std::string_view dict, std::optional<DType> input = std::nullopt) {
  return ParseNpyHeader(File(dict), input);
}

std::string Dict(std::string_view descr, std::string_view shape = "(3, 4)") {
  return fmt::format("{{'descr': {}, 'fortran_order': False, 'shape': {}, }}\n", descr, shape);
}

std::string Message(const absl::StatusOr<NpyHeader>& header) {
  if (header.ok()) return "(accepted)";
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(header.status().message());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

TEST(NpyTest, ReadsWhatNumpyWrites) {
  const auto header = Parse("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }     \n");
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->dtype, DType::kFloat32);
  EXPECT_FALSE(header->fortran_order);
  EXPECT_FALSE(header->swap_bytes);
  EXPECT_EQ(header->rows, 3);
  EXPECT_EQ(header->dim, 4);
  EXPECT_EQ(header->data_offset, 10 + 65);
  EXPECT_EQ(header->data_bytes(), 48);
}

TEST(NpyTest, VersionsTwoAndThreeHaveLongerLengths) {
  for (int version : {2, 3}) {
    const auto header = ParseNpyHeader(File(Dict("'<f8'"), version), std::nullopt);
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header->data_offset, static_cast<int64_t>(12 + Dict("'<f8'").size()));
  }
}

TEST(NpyTest, AnySpellingOfTheDictIsTheSame) {
  for (const std::string& dict : {
           "{'shape':(3,4),'fortran_order':True,'descr':'<f2'}"s,
           "{'shape': (3, 4,), 'fortran_order': True, 'descr': '<f2',}"s,
           "  {\n\t'shape' :\n( 3 ,\r\n4 , ) , 'fortran_order' : True , 'descr' : '<f2' , } \n\t "s,
           "{\"shape\": (3, 4), \"fortran_order\": True, \"descr\": \"<f2\"}"s,
           "{u'shape': (3L, 4L), u'fortran_order': True, b'descr': b'<f2'}"s,
           "{U'shape': (3l, 4l), B'fortran_order': True, 'descr': u\"<f2\"}"s,
           "{'sh\\x61pe': (+3, 4), 'fortran\\137order': True, 'd\\u0065scr': '\\U0000003cf2'}"s,
           "{'shape': ((3), (4)), ('fortran_order'): (True), 'descr': (('<f2'))}"s,
           "{'shape': (3, 4), 'fortran_order': True, 'des\\\ncr': '<f2'}"s,
       }) {
    const auto header = Parse(dict);
    ASSERT_TRUE(header.ok()) << dict << header.status();
    EXPECT_EQ(header->rows, 3) << dict;
    EXPECT_EQ(header->dim, 4) << dict;
    EXPECT_TRUE(header->fortran_order) << dict;
    EXPECT_EQ(header->dtype, DType::kFloat16) << dict;
  }
}

TEST(NpyTest, EveryDescrOfASupportedDType) {
  struct Case {
    const char* descr;
    DType dtype;
    bool swap;
  };
  for (const Case& c : std::vector<Case>{
           {"|b1", DType::kBool, false},          {"|i1", DType::kInt8, false},
           {"|u1", DType::kUInt8, false},         {"<i2", DType::kInt16, false},
           {"<i4", DType::kInt32, false},         {"<i8", DType::kInt64, false},
           {"<f2", DType::kFloat16, false},       {"<f4", DType::kFloat32, false},
           {"<f8", DType::kFloat64, false},       {">i2", DType::kInt16, true},
           {">i4", DType::kInt32, true},          {">i8", DType::kInt64, true},
           {">f2", DType::kFloat16, true},        {">f4", DType::kFloat32, true},
           {">f8", DType::kFloat64, true},        {"=f4", DType::kFloat32, false},
           {"f4", DType::kFloat32, false},        {">i1", DType::kInt8, false},
           {">u1", DType::kUInt8, false},         {"<b1", DType::kBool, false},
           {"bfloat16", DType::kBFloat16, false}, {"float32", DType::kFloat32, false}}) {
    const auto header = Parse(Dict(fmt::format("'{}'", c.descr)));
    ASSERT_TRUE(header.ok()) << c.descr << header.status();
    EXPECT_EQ(header->dtype, c.dtype) << c.descr;
    EXPECT_EQ(header->swap_bytes, c.swap) << c.descr;
  }
}

TEST(NpyTest, RawTwoByteDataIsBFloat16OnlyWhenTheUserSaysSo) {
  for (const char* descr : {"'<V2'", "'|V2'", "'V2'"}) {
    EXPECT_NE(Message(Parse(Dict(descr))).find("pass --input-dtype bfloat16"), std::string::npos);
    const auto header = Parse(Dict(descr), DType::kBFloat16);
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header->dtype, DType::kBFloat16);
    EXPECT_FALSE(Parse(Dict(descr), DType::kFloat16).ok()) << "only bfloat16 is written so";
  }
  EXPECT_FALSE(Parse(Dict("'|V3'"), DType::kBFloat16).ok());
  EXPECT_FALSE(Parse(Dict("'>V2'"), DType::kBFloat16).ok());
}

TEST(NpyTest, InputDTypeMayRepeatButNotContradictTheHeader) {
  EXPECT_TRUE(Parse(Dict("'<f4'"), DType::kFloat32).ok());
  EXPECT_TRUE(Parse(Dict("'bfloat16'"), DType::kBFloat16).ok());
  EXPECT_EQ(Message(Parse(Dict("'<i2'"), DType::kBFloat16)),
            "--input-dtype bfloat16 contradicts the file, which holds int16 (descr '<i2'); leave "
            "--input-dtype out");
}

TEST(NpyTest, UnsupportedDTypesAreNamed) {
  struct Case {
    const char* descr;
    const char* found;
  };
  for (const Case& c : std::vector<Case>{
           {"'<u2'", "holds uint16 (descr '<u2')"},
           {"'>u4'", "holds uint32 (descr '>u4')"},
           {"'<u8'", "holds uint64 (descr '<u8')"},
           {"'<f16'", "holds float128 (long double) (descr '<f16')"},
           {"'<c8'", "holds complex64 (descr '<c8')"},
           {"'>c16'", "holds complex128 (descr '>c16')"},
           {"'|O'", "holds Python objects (descr '|O')"},
           {"'O'", "holds Python objects (descr 'O')"},
           {"'|S5'", "holds byte strings (descr '|S5')"},
           {"'<U5'", "holds strings (descr '<U5')"},
           {"'<M8[ns]'", "holds datetime64 (descr '<M8[ns]')"},
           {"'<m8[D]'", "holds timedelta64 (descr '<m8[D]')"},
           {"'|V16'", "holds raw data of 16 bytes an element (descr '|V16')"},
           {"'|V1'", "holds raw data of 1 bytes an element (descr '|V1')"},
           {"''", "holds an unknown dtype (descr '')"},
           {"'<'", "holds an unknown dtype (descr '<')"},
           {"'<f0'", "holds an unknown dtype (descr '<f0')"},
           {"'<u0'", "holds an unknown dtype (descr '<u0')"},
           {"'<f3'", "holds float24 (descr '<f3')"},
           {"'<f'", "holds an unknown dtype (descr '<f')"},
           {"'<f4 '", "holds an unknown dtype (descr '<f4 ')"},
           {"'<<f4'", "holds an unknown dtype (descr '<<f4')"},
           {"'<q8'", "holds an unknown dtype (descr '<q8')"},
           {"'\\n'", "holds an unknown dtype (descr '\\x0a')"},
           {"'<f99999999999999999999'", "holds an unknown dtype (descr '<f99999999999999999999')"},
           {"[('a', '<f4'), ('b', '<i2', (2,))]", "holds a structured dtype of 2 fields"},
           {"[('x', [('y', '<f4')])]", "holds a structured dtype of 1 fields"},
           {"('<f4', (2,))", "holds a subarray dtype"}}) {
    const std::string message = Message(Parse(Dict(c.descr)));
    EXPECT_TRUE(message.starts_with(c.found)) << message;
    EXPECT_NE(message.find("expected one of float32, float64, float16, bfloat16"),
              std::string::npos)
        << message;
  }
}

TEST(NpyTest, ShapesThatAreNot2DSayHowToReshape) {
  for (const char* shape : {"()", "(3,)", "(3, 4, 5)", "(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)"}) {
    EXPECT_NE(Message(Parse(Dict("'<f4'", shape))).find("expected 2-D (rows, dim): reshape it"),
              std::string::npos);
  }
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "(1,1,1,1,1,1,1,1,1,1)"))),
            "is 10-D with shape (1, 1, 1, 1, 1, 1, 1, 1, ...); expected 2-D (rows, dim): reshape "
            "it (for example a.reshape(-1, a.shape[-1]))");
}

TEST(NpyTest, BadShapesAreRefused) {
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "(-1, 4)"))),
            "damaged .npy header: 'shape' (-1, 4) is negative");
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "(3, -99999999999999999999)"))),
            "damaged .npy header: 'shape' (3, -99999999999999999999) is negative");
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "(3, 'a')"))),
            "damaged .npy header: 'shape' (3, a string) holds a string, expected ints");
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "(True, 4)"))),
            "damaged .npy header: 'shape' (a bool, 4) holds a bool, expected ints");
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "[3, 4]"))),
            "damaged .npy header: 'shape' is a list, expected a tuple (rows, dim)");
  EXPECT_EQ(Message(Parse(Dict("'<f4'", "(3)"))),
            "damaged .npy header: 'shape' is an int, expected a tuple (rows, dim)");
}

TEST(NpyTest, ShapesWhoseBytesOverflowAreRefused) {
  for (const char* shape :
       {"(4611686018427387904, 4611686018427387904)", "(2147483648, 1073741824)",
        "(99999999999999999999999999, 1)", "(1, 99999999999999999999999999)",
        "(9223372036854775807, 1)", "(0, 9223372036854775807)", "(9223372036854775807, 0)",
        "(2305843009213693951, 1)"}) {  // the last: the data fits, the header before it does not
    EXPECT_NE(Message(Parse(Dict("'<f4'", shape))).find("is larger than any file"),
              std::string::npos)
        << shape;
  }
  const auto header = Parse(Dict("'|i1'", "(9223372036854775000, 1)"));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->data_bytes(), 9223372036854775000);
}

TEST(NpyTest, NoRowsOrNoColumnsParse) {
  EXPECT_EQ(Parse(Dict("'<f4'", "(0, 4)"))->rows, 0);
  EXPECT_EQ(Parse(Dict("'<f4'", "(4, 0)"))->dim, 0);
  EXPECT_EQ(Parse(Dict("'<f4'", "(0, 0)"))->data_bytes(), 0);
}

TEST(NpyTest, KeysMustBeTheThreeOnce) {
  EXPECT_EQ(Message(Parse("{'descr': '<f4', 'shape': (3, 4)}")),
            "damaged .npy header: key 'fortran_order' is missing");
  EXPECT_EQ(Message(Parse("{'fortran_order': False, 'shape': (3, 4)}")),
            "damaged .npy header: key 'descr' is missing");
  EXPECT_EQ(Message(Parse("{'descr': '<f4', 'fortran_order': False}")),
            "damaged .npy header: key 'shape' is missing");
  EXPECT_EQ(Message(Parse("{}")), "damaged .npy header: key 'descr' is missing");
  EXPECT_EQ(Message(Parse("{'descr': '<f4', 'descr': '<f4'}")),
            "damaged .npy header: key 'descr' twice");
  EXPECT_EQ(Message(Parse("{'descr': '<f4', 'extra': 1}")),
            "damaged .npy header: unknown key 'extra', expected 'descr', 'fortran_order' and "
            "'shape'");
  EXPECT_EQ(Message(Parse("{1: 2}")),
            "damaged .npy header: found an int as a key, expected a string");
}

TEST(NpyTest, ValuesMustHaveTheirTypes) {
  EXPECT_EQ(Message(Parse("{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 4)}")),
            "damaged .npy header: 'fortran_order' is an int, expected True or False");
  EXPECT_EQ(Message(Parse(Dict("None"))),
            "damaged .npy header: 'descr' is None, expected a string like '<f4'");
  EXPECT_EQ(Message(Parse("[1, 2]")),
            "damaged .npy header: found a list, expected a dict with 'descr', 'fortran_order' and "
            "'shape'");
}

TEST(NpyTest, TextThatIsNoLiteralIsRefusedWithItsPlace) {
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"", "found the end, expected a Python literal, at character 0"},
           {"{'descr'", "found the end, expected ':', at character 8"},
           {"{'descr': '<f4'", "found the end, expected ',' or '}', at character 15"},
           {"{'descr': '<f4", "found the end, expected a closing quote, at character 14"},
           {"{'descr': '<f4\n'}", "found byte 0x0a, expected a closing quote, at character 14"},
           {"{'a': 1 2}", "found '2', expected ',' or '}', at character 8"},
           {"{'a': (1 2)}", "found '2', expected ',' or ')', at character 9"},
           {"{'a': [1 2]}", "found '2', expected ',' or ']', at character 9"},
           {"{,}", "found ',', expected a Python literal, at character 1"},
           {"{'a': (,)}", "found ',', expected a Python literal, at character 7"},
           {"{'a': (1,,)}", "found ',', expected a Python literal, at character 9"},
           {"{} {}", "found '{', expected the end of the header, at character 3"},
           {"{'a': 1.5}", "found '.', expected the end of an int, at character 7"},
           {"{'a': 0x10}", "found 'x', expected the end of an int, at character 7"},
           {"{'a': 010}", "found an int with a leading zero at character 6"},
           {"{'a': -}", "found '}', expected a digit, at character 7"},
           {"{'a': true}", "found the name 'true', expected a Python literal, at character 6"},
           {"{'a': f()}", "found the name 'f', expected a Python literal, at character 6"},
           {"{'a\\xg0': 1}", "found 'g', expected a hexadecimal digit, at character 5"},
           {"{'\\U00110000': 1}", "found an escape beyond Unicode at character 12"},
           {"{'\\N{DASH}': 1}", "found the escape \\N, which is not supported, at character 4"},
           {"\0"s, "found byte 0x00, expected a Python literal, at character 0"},
           {"{'a': 1}\0"s, "found byte 0x00, expected the end of the header, at character 8"},
           {"{'a\\", "found the end, expected a closing quote, at character 4"}}) {
    EXPECT_EQ(Message(Parse(text)), "damaged .npy header: " + message) << text;
  }
}

TEST(NpyTest, DeepNestingIsRefusedNotFollowed) {
  for (const char* bracket : {"(", "[", "{1:", "{"}) {
    std::string text;
    while (text.size() < 60000) text += bracket;
    EXPECT_FALSE(Parse(text).ok());
  }
  EXPECT_EQ(Message(Parse(std::string(1000, '('))),
            "damaged .npy header: brackets are nested too deeply at character 33");
}

TEST(NpyTest, FilesThatAreNoNpyFileSayWhatTheyStartWith) {
  const auto of = [](std::string_view bytes) {
    return Message(ParseNpyHeader({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                                  std::nullopt));
  };
  EXPECT_EQ(of(""), "is empty; expected an .npy file");
  EXPECT_EQ(of("\x93NUM"), "ends after 4 bytes; expected an .npy file");
  EXPECT_EQ(of("word 0.1 0.2"),
            "is not an .npy file: it starts with 'word 0', expected '\\x93NUMPY'");
  EXPECT_EQ(of("PK\x03\x04 rest"),
            "is not an .npy file: it starts with 'PK\\x03\\x04 r', expected '\\x93NUMPY' (it looks "
            "like a zip or .npz file: save the array in it with numpy.save)");
  EXPECT_NE(of("\x80\x04\x95 a pickle").find("it looks like a pickle"), std::string::npos);
  EXPECT_NE(of("\x89HDF\r\n").find("it looks like an HDF5 file"), std::string::npos);
  EXPECT_EQ(of("\x93NUMPY\x04\x00 and more"s),
            "is an .npy file of version 4.0; expected version 1.0, 2.0 or 3.0");
  EXPECT_EQ(of("\x93NUMPY\x01\x01 and more"s),
            "is an .npy file of version 1.1; expected version 1.0, 2.0 or 3.0");
}

TEST(NpyTest, EveryTruncationOfTheHeaderIsRefused) {
  for (int version : {1, 2, 3}) {
    const std::vector<uint8_t> file = File(Dict("'<f4'"), version);
    for (size_t size = 0; size < file.size(); ++size) {
      EXPECT_FALSE(ParseFirst(size, file).ok()) << size;
    }
    EXPECT_TRUE(ParseNpyHeader(file, std::nullopt).ok());
  }
  EXPECT_EQ(Message(ParseFirst(20, File(Dict("'<f4'")))),
            "ends within the .npy header: 20 bytes found, 70 expected");
}

TEST(NpyTest, HeadersUpTo64KiBAreReadAndLongerOnesRefused) {
  std::string dict = Dict("'<f4'");
  dict.resize(kMaxNpyHeaderBytes, ' ');
  const auto header = ParseNpyHeader(File(dict, 2), std::nullopt);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->data_offset, 12 + kMaxNpyHeaderBytes);
  dict += ' ';
  EXPECT_EQ(Message(ParseNpyHeader(File(dict, 2), std::nullopt)),
            "damaged .npy header: its length is 65537 bytes, expected at most 65536");
  EXPECT_FALSE(ParseFirst(12, File(dict, 2)).ok());
}

}  // namespace
}  // namespace tiny_knn
