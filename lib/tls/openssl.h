/* OpenSSL's headers for files that use them beside base/err.h: both name something ERR_STATE. */
#ifndef TLS_OPENSSL_H
#define TLS_OPENSSL_H

#define ERR_STATE openssl_err_state
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#undef ERR_STATE

#endif
