#include "cli/cli_main.h"

int main(int argc, char** argv) { return tiny_knn::CliMain(argc, argv); }
