<?php
// SDP asks what this gateway uses. This file is removed as soon as it has answered.
error_reporting(0);
ini_set('display_errors', '0');
defined('BASEPATH') || define('BASEPATH', dirname(__DIR__) . '/');

function sdp_include($file)
{
    $result = include $file;
    unset($file);
    return get_defined_vars();
}

function sdp_urls($values, &$urls, $depth)
{
    foreach ($values as $key => $value) {
        if (is_array($value)) {
            if ($depth < 20) {
                sdp_urls($value, $urls, $depth + 1);
            }
        } elseif (is_string($key) && is_string($value) && strtolower(substr($key, -4)) === '_url') {
            $urls[$key][] = $value;
        }
    }
}

// What SDP wrote is compiled anew: OPcache may never look at a file again. Nothing else, as that costs it memory.
$sdp_config = dirname(__DIR__) . '/' . SDP_CONFIG;
$sdp_table = __DIR__ . '/routes.php';
if (function_exists('opcache_invalidate')) {
    foreach (SDP_WRITTEN as $sdp_file) {
        @opcache_invalidate($sdp_file, true);
    }
}

ob_start();
$sdp_values = sdp_include($sdp_config);
$sdp_constants = get_defined_constants(true);
unset($sdp_constants['user']['SDP_ROUTES'], $sdp_constants['user']['SDP_HEADERS']);
$sdp_table = is_file($sdp_table) ? include $sdp_table : array();
while (ob_get_level() > 0) {
    ob_end_clean();
}
$sdp_answer = array('keys' => array(), 'constants' => array());
sdp_urls($sdp_values, $sdp_answer['keys'], 0);
sdp_urls(isset($sdp_constants['user']) ? $sdp_constants['user'] : array(), $sdp_answer['constants'], 0);
$sdp_answer = array_map(function ($part) { return (object) $part; }, $sdp_answer);
$sdp_answer['table'] = isset($sdp_table['version']) ? $sdp_table['version'] : null;
header('Content-Type: application/json');
echo json_encode($sdp_answer, JSON_PARTIAL_OUTPUT_ON_ERROR);
